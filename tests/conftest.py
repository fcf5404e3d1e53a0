"""For all tests."""

from hypothesis import settings

# Speed belongs to the benchmarks: a busy machine must fail no test.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
