"""The GPUs of a container: Docker's `--gpus`, and the variables that choose them."""

import csv


def csv_fields(value: str) -> list[str]:
    """The fields of an option that Docker reads as CSV."""
    try:
        return next(csv.reader([value]), [])
    except csv.Error:  # too long, or of several lines
        return [value]


def gpus_of_option(value: str) -> tuple[list[str], str]:
    """The devices, and how many there are to be: a number or `all`.

    It is CSV: `all`, a count, `"device=0,1"` with its quotes, `count=2`, and settings of the driver.
    """
    devices: list[str] = []
    count = ""
    for part in csv_fields(value.strip("'")):
        key, equals, content = part.partition("=")
        if key == "device":
            devices += content.split(",")
        elif devices and not equals:
            devices.append(part)  # the quotes are missing
        elif key == "count" or not equals:
            count = count or content or part
    return devices, count or ("1" if value else "all")  # Docker gives one


def set_gpu_variable(name: str, environment: dict[str, str], gpus: list[str]) -> str:
    """Set the variable `name` to the GPUs as the host counts them: a container counts its own from 0.

    Return the value that it had if that names other GPUs than the container's `gpus`, else an empty text.
    """
    if all(gpu.isdigit() for gpu in gpus):
        gpus.sort(key=int)  # a driver counts by bus, whatever the order of the option
    of_cuda = environment.pop("CUDA_VISIBLE_DEVICES", "")  # with ROCm it counts beside HIP's own
    chosen = environment.get(name) or of_cuda
    words = [word.strip() for word in chosen.split(",")] if chosen else []
    visible = dict(zip(map(str, range(len(gpus))), gpus, strict=True))
    if words and {*words} <= {gpu for gpu in gpus if not gpu.isdigit()}:
        environment[name] = chosen  # an id means the same everywhere
        return ""
    is_known = {*words} <= visible.keys()
    if not words and name.startswith("CUDA"):
        environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # that of the container engine
    environment[name] = ",".join([visible[word] for word in words] if words and is_known else gpus)
    return "" if is_known else chosen
