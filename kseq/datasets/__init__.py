from kseq.datasets.catalogue import describe, load, names
