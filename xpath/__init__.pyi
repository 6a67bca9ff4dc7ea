from .errors import XPathError as XPathError
from .explain.methods import attribute as attribute
from .labels import load_labels as load_labels
from .mil.attention_mil import AttentionMIL as AttentionMIL
from .mil.bag import Bag as Bag
from .mil.classifier import load_classifier as load_classifier
from .mil.object_aware import ObjectAwareMIL as ObjectAwareMIL
from .mil.prediction import predict as predict
from .mil.training import train as train
from .segment.predict.predictor import SegmentPredictor as SegmentPredictor
from .store.features import read_features as read_features
from .wsi.slide import Slide as Slide

__version__: str
