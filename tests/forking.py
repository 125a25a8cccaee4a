"""Servers of trials that are forked, for tests, from a process that has Keras already.

A search starts a server of its own, a `TrialServer`, and that imports Keras for
seconds. Here they come from one that has imported it, and so has run nothing. Tests
that kill a search run it as a program, and so from nothing.
"""

import functools
import multiprocessing
import os


class Forking:
    """What the server takes of a context of `multiprocessing`."""

    def Pipe(self):
        return forkserver().Pipe()

    def Process(self, target, args, name):
        args = (dict(os.environ), target, *args)
        return forkserver().Process(target=in_environment, args=args, name=name)


@functools.cache
def forkserver():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tensorflow", "kseq.tuning.trials.trial"])
    return context


def in_environment(environment, target, *args):
    """Runs a function with the environment of the process that asks for it."""
    os.environ.clear()
    os.environ.update(environment)
    target(*args)
