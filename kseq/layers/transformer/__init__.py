"""Transformer layers: attention, blocks, encoder and decoder."""
