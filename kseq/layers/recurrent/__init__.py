"""Recurrent layers: cells, encoder and decoder, and the loops that run them fast."""
