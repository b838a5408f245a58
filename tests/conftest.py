"""Property tests: the same examples in every run, and no limit on the time of one."""

from hypothesis import settings

settings.register_profile('repeatable', deadline=None, derandomize=True)
settings.load_profile('repeatable')
