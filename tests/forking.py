"""Servers of trials that are forked, for tests, from a process that has Keras already.

A search starts a server of its own, a `TrialServer`, and that imports Keras for
seconds. Here they come from one that has imported it, and so has run nothing. Tests
that kill a search run it as a program, and so from nothing.
"""

import contextlib
import functools
import json
import multiprocessing
import os
from unittest import mock

from kseq.tuning.trials import supervision, warm_server


@contextlib.contextmanager
def forked_trials():
    """Lets the tasks of executors of this process start trials at once too."""
    with mock.patch.object(supervision.subprocess, "Popen", ForkedServer):
        yield
    close_idle_servers()


def close_idle_servers():
    for server in list(supervision.idle_servers()):
        if server.wake():
            server.close()


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


class ForkedServer:
    """What `supervise` takes of the `subprocess.Popen` of a `warm_server`."""

    def __init__(self, command, env, **options):
        self.env, self.folder = env, None
        self.stdin = self.stdout = self

    def write(self, line):
        self.folder = json.loads(line)
        arguments = self.env, run_attempt, self.folder
        self.process = forkserver().Process(target=in_environment, args=arguments)
        self.process.start()
        self.pid = self.process.pid
        self.kill = self.process.kill

    def readline(self):
        warm_server.watch(self.process, self.folder, os.getppid())
        return "\n"

    def poll(self):
        return None

    def wait(self, timeout=None):
        return self.process.exitcode

    def flush(self):
        pass

    close = flush


def run_attempt(folder):
    from kseq.tuning.trials.attempt_process import main

    os.setsid()
    main(folder, os.getppid())


def in_environment(environment, target, *args):
    """Runs a function with the environment of the process that asks for it."""
    os.environ.clear()
    os.environ.update(environment)
    target(*args)
