"""Servers of trials for tests, forked from a process that has imported Keras.

A search starts its own `TrialServer`, which imports Keras for seconds. Here the servers
are forked from a process that has imported Keras and done nothing else. Tests that
kill a search run it as a program instead.
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
    """Fork the trials that tasks of executors start in this process."""
    with mock.patch.object(supervision.subprocess, "Popen", ForkedServer):
        yield
    close_idle_servers()


def close_idle_servers():
    for server in list(supervision.idle_servers()):
        if server.wake():
            server.close()


class ForkingContext:
    """The part of a `multiprocessing` context that the server of trials uses."""

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
    """The part of `subprocess.Popen` that `supervise` uses for a `warm_server`."""

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
    """Run a function with the environment of the process that calls it."""
    os.environ.clear()
    os.environ.update(environment)
    target(*args)
