"""MVSplat: posed photos to 3D Gaussians in one forward pass.

Written from the paper and a description of its details: MVSplat: efficient 3D Gaussian splatting from sparse multi-view
images (Chen et al., ECCV 2024). Read `encoder` first, then `depth_predictor` and `adapter`.
"""

from sphinx_nvs.models.mvsplat.encoder import Encoded, Encoder
from sphinx_nvs.models.mvsplat.encoder_config import RELEASED, TINY, EncoderConfig, UNetShape
from sphinx_nvs.models.mvsplat.encoder_weights import encoder_weights, load_mvsplat, random_mvsplat
from sphinx_nvs.models.mvsplat.gaussian_reconstruction import MvSplatReconstruction
from sphinx_nvs.models.mvsplat.mvsplat import MvSplat, MvSplatSettings

__all__ = [
    "RELEASED",
    "TINY",
    "Encoded",
    "Encoder",
    "EncoderConfig",
    "MvSplat",
    "MvSplatReconstruction",
    "MvSplatSettings",
    "UNetShape",
    "encoder_weights",
    "load_mvsplat",
    "random_mvsplat",
]
