from .errors import XPathError as XPathError
from .labels import LabelTree as LabelTree
from .mil.attention_mil import AttentionMIL as AttentionMIL
from .mil.bag import Bag as Bag
from .mil.object_aware import ObjectAwareMIL as ObjectAwareMIL
from .segment.predict.predictor import SegmentPredictor as SegmentPredictor
from .wsi.slide import Slide as Slide

__version__: str
