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

- `server`, `payload`: how processes come to be, and what they are given
- `job`: the job of a process, and every message
- `executor_server`, `attempts`: trials as tasks of an executor
- `supervision`, `attempt_process`: what such a task runs
- `layout`, `files`: which files there are, and how they are written

The process of a trial:

- `trial`: from its job to its score
- `execution`: one training, by the space's `fit`
- `fits`, `checkpoint_callback`, `checkpoints`, `shuffling`: a `fit` that resumes
- `weights`: what the trial leaves
"""
