"""The execution of a search: trials, each in its own process.

In the process of the search, which never builds a model:

- `running`: one call of `search`, from beginning to end
- `identity`: the identity of a search
- `exploration`: the hyperparameters of its space
- `journal`, `events`: the record of what has happened
- `oracles`, `trial_queue`: the next trial to run
- `loop`: starts trials and receives their messages
- `outcomes`, `stopping`: decisions about trials
- `table`: the progress display

Between processes:

- `attempts`: attempts at trials, and the files that both sides use
- `job`: the job of a process, and all messages
- `server`: starts processes on this host
- `executor_engine`: starts processes through an executor
- `supervision`: supervises a process on a worker of an executor
- `warm_server`: forks processes there
- `payload`: the data passed to processes
- `layout`, `files`: the files of a search, and how they are written

In the process of a trial:

- `attempt_process`: from its folder to its job
- `trial`: from its job to its score
- `execution`: one training, by the space's `fit`
- `fits`, `checkpoint_callback`, `checkpoints`, `shuffling`: a resumable `fit`
- `weights`: the files that a trial leaves
"""
