"""Recurrent layers: cells, encoder, decoder, and the fast loops that run them."""
