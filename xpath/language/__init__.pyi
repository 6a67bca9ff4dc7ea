from .endpoint import EndpointReader as EndpointReader
from .facts import FactScores as FactScores
from .facts import fact_scores as fact_scores
from .offline import OfflineReader as OfflineReader
from .reading import Mention as Mention
from .reading import Reader as Reader
from .reading import Reading as Reading
from .reading import Request as Request
