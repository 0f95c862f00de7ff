"""One of two processes that read a model and export it together, each with two of four devices:
`python -m tests.hf.two_processes FOLDER PORT INDEX`.
"""

import os
import sys

from tests.own_process import with_devices

if __name__ == "__main__":
    os.environ["XLA_FLAGS"] = with_devices(2)

from adakd_jax.config import MeshConfig
from adakd_jax.config.processes import ProcessesConfig
from adakd_jax.hf.export import save_pretrained
from adakd_jax.hf.load import load_pretrained
from adakd_jax.processes import join
from adakd_jax.sharding import make_mesh, parameter_spec, rules_of


def main():
    """Exports FOLDER/whole as FOLDER/again; prints how much of it this process held."""
    folder, port, index = sys.argv[1:]
    join(ProcessesConfig(coordinator=f"localhost:{port}", count=2, index=int(index)))
    config = MeshConfig(fsdp=4)
    mesh, rules = make_mesh(config), rules_of(config, "student")
    model = load_pretrained(
        f"{folder}/whole", mesh=mesh, rules=lambda path: parameter_spec(path, rules)
    )
    save_pretrained(model, f"{folder}/again")
    embedding = model.params["embed"]["embedding"]
    print(sum(shard.data.size for shard in embedding.addressable_shards) / embedding.size)


if __name__ == "__main__":
    main()
