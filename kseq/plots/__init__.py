from kseq.plots.attention import attention_heads, attention_heatmap
from kseq.plots.figures import legible
from kseq.plots.highlights import highlighted_texts
from kseq.plots.history import training_curve
