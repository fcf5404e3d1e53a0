"""How good a version is: metrics, and the runner that measures them."""
