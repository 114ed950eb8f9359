"""Receiving, shared by every door: which channels are followed, and what each peer is sent of them."""
