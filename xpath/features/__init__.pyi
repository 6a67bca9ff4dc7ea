from .encoders import Precision as Precision
from .encoders import TimmEncoder as TimmEncoder
from .model_options import model_options as model_options
