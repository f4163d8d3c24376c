"""torchvision, where there is one, before transformers is imported: it looks once."""

from tests.families.torchvision_ops import has_torchvision

has_torchvision()
