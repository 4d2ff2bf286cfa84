"""What is raised when the code changes what a cache holds."""

FEATURE_VERSION = 4  # raised whenever the code changes what a feature's value is
# Raised whenever the code changes what views show of a clip that has several; a clip's only view shows what it always
# did. The first version had no identity of its own.
VIEWS_VERSION = 2
