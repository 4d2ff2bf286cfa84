"""Shortcuts: what the test clips of trained runs score when a part of what the head sees is changed."""
