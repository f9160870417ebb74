"""Errors that a person can cause."""


class InputError(Exception):
    """Something outside the program is wrong, and a person can put it right.

    The message is one sentence for that person: what, where, and what to do. Apps print it as it stands, without
    a traceback. Every other exception is a bug of tfcnn and shows as one.
    """
