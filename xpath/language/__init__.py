"""Words in, labels out: reads reports, requests and open questions.

``OfflineReader`` needs nothing but this package; ``EndpointReader`` asks a language model behind an
OpenAI-compatible server. Neither can ask for what is not in the label tree.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
