from typing import Self

from typing_extensions import disjoint_base

@disjoint_base
class Scratch:
    def __new__(cls, num_threads: int, size: int) -> Self: ...
