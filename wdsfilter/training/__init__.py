"""Scored pairs -> a judge: fine-tuning a checkpoint, or teaching one from nothing.

:mod:`~wdsfilter.training.loop` is the seam: it takes any source of batches and any objective. Only
recipe.py, options.py, scored.py, answers.py, source.py, folder.py and report.py do without torch.
"""
