from kseq.tuning.dimensions import Boolean, Choice, Fixed, Float, Int
from kseq.tuning.space import Space

__all__ = ["Boolean", "Choice", "Fixed", "Float", "Int", "Space"]
