"""What a base's autoencoder makes of a picture."""

import torch
from PIL import Image

from pairlora.bases.interface import Base


@torch.inference_mode()
def reconstruct(base: Base, picture: Image.Image) -> Image.Image:
    """A picture, encoded and decoded at the mean of its latents: nothing that the base draws comes nearer to the picture than this."""
    mean, _ = base.encode_pictures([picture])
    return base.decode_latents(mean)[0]
