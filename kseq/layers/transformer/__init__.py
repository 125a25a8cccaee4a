"""The Transformer: its attention, blocks, encoder and decoder."""
