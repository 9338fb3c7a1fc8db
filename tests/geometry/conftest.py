"""Laws are tried on few examples, without a deadline: machines that run tests are busy."""

from hypothesis import settings

settings.register_profile("laws", max_examples=20, deadline=None)
settings.load_profile("laws")
