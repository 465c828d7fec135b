"""The init container and the resolve pod: brings a model's artifact to a folder, and proves that it is the right
one."""
