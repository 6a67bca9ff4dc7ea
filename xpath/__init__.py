"""Explainable pathology analytics: what on the slide decided, in objects a pathologist can name."""

from __future__ import annotations


from xpath.errors import XPathError


