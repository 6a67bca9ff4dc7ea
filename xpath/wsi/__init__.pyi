from .clam import grid_from_preset as grid_from_preset
from .grid import GridConfig as GridConfig
from .grid import cut_grid as cut_grid
from .patches import iter_patches as iter_patches
from .slide import Slide as Slide
from .tissue import Tissue as Tissue
from .tissue import TissueConfig as TissueConfig
from .tissue import find_tissue as find_tissue
