"""What runs the trials of a search, each in a process of its own.

The process of the search, which never builds a model:

- `running`: one call of `search`, from first to last
- `identity`: what makes a search this one
- `exploration`: the hyperparameters of its space
- `journal`, `events`: what has happened
- `oracles`, `trial_queue`: which trial runs next
- `loop`: hands trials to workers, and hears from them
- `outcomes`, `stopping`: what becomes of a trial
- `table`: what is shown

Between the processes:

- `attempts`: processes by the names of workers, and the files between the two sides
- `job`: the job of a process, and every message
- `server`: starts processes on this host
- `executor_engine`: has an executor start them
- `supervision`: watches over a process, on a worker of an executor
- `warm_server`: forks processes there
- `payload`: what processes are given
- `layout`, `files`: which files there are, and how they are written

The process of a trial:

- `attempt_process`: from its folder to its job
- `trial`: from its job to its score
- `execution`: one training, by the space's `fit`
- `fits`, `checkpoint_callback`, `checkpoints`, `shuffling`: a `fit` that resumes
- `weights`: what the trial leaves
"""
