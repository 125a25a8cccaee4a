"""Rows of several inputs by name, as dictionaries that may stand in each other."""


def each_input(data):
    """What stands under each name, in order; of one input what it is."""
    if isinstance(data, dict):
        return [rows for part in data.values() for rows in each_input(part)]
    return [data]


def by_name(data, values):
    """The values, one for each input, under the names of the data."""
    values = iter(values)

    def filled(part):
        if isinstance(part, dict):
            return {name: filled(each) for name, each in part.items()}
        return next(values)

    return filled(data)


def names_of(name, data):
    """What each input is called in a message: `source["tags"]`."""
    if isinstance(data, dict):
        return [
            label
            for key, part in data.items()
            for label in names_of(f'{name}["{key}"]', part)
        ]
    return [name]
