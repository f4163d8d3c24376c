"""Which neurons of a vision-language model turn what it sees into words?"""

__version__ = "0.1.0"
