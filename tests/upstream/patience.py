"""What sqlite needs and a database of a real control plane does not."""

import time


def patient(api):
    """sqlite's only: a row is saved again when the conductor or the taskmanager is just writing the same file."""
    save = api.save

    def again(model):
        for attempt in range(50):
            try:
                return save(model)
            except Exception as error:
                if attempt == 49 or "database is locked" not in str(error):
                    raise
                time.sleep(0.05)

    api.save = again
