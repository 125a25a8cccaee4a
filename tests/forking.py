"""Servers of trials that are forked, for tests, from a process that has Keras already.

A search starts a server of its own, a `TrialServer`, and that imports Keras for
seconds. Here they come from one that has imported it, and so has run nothing. Tests
that kill a search run it as a program, and so from nothing.
"""

import contextlib
import functools
import multiprocessing
import os
from unittest import mock

from kseq.tuning.trials import supervision


@contextlib.contextmanager
def forked_trials():
    """Lets the tasks of executors of this process start trials at once too."""
    with mock.patch.object(supervision.subprocess, "Popen", ForkedTrial):
        yield


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
    context.set_forkserver_preload(
        ["tensorflow", "kseq.tuning.trials.trial", "kseq.tuning.trials.attempt_process"]
    )
    return context


class ForkedTrial:
    """What `supervise` takes of a `subprocess.Popen`."""

    def __init__(self, command, env, **options):
        *_, folder, _ = command
        context = forkserver()
        arguments = env, run_attempt, folder
        self.process = context.Process(target=in_environment, args=arguments)
        self.process.start()
        self.pid = self.process.pid
        self.kill = self.process.kill

    def poll(self):
        return self.process.exitcode

    def wait(self):
        self.process.join()
        return self.process.exitcode


def run_attempt(folder):
    from kseq.tuning.trials.attempt_process import main

    os.setsid()
    main(folder, os.getppid())


def in_environment(environment, target, *args):
    """Runs a function with the environment of the process that asks for it."""
    os.environ.clear()
    os.environ.update(environment)
    target(*args)
