"""Composition: which adapters, roles and processes make up a deployment."""
