"""Stage 3: where a render cannot be trusted, how good each view is, what kind of scene it is."""

from sphinx_nvs.assess.assessment import AssessConfig, Assessment, assess

__all__ = ["AssessConfig", "Assessment", "assess"]
