"""Presets: named, typed, few. A run writes the one it used into its folder."""

from dataclasses import dataclass, field, replace

from timecolor.toon import ToonConfig
from timecolor.world import HELD_OUT_SEED


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the curriculum: until this share of the steps, protocols are drawn with these weights."""

    until: float
    start_frame: float
    arbitrary_frame: float
    multi_reference: float


@dataclass(frozen=True, slots=True)
class Bucket:
    """Batches of one size. height, width: working pixels. weight: how often it is drawn."""

    height: int
    width: int
    frames: int
    batch: int
    weight: float


@dataclass(frozen=True, slots=True)
class Preset:
    """All that decides a run. steps: length of the run; the learning rate falls to 0 over the last `cooldown` of it."""

    model: ToonConfig = field(default_factory=lambda: ToonConfig(hints=True))
    colour_cell: int = 4  # pixels per target latent, the codec's stride
    buckets: tuple[Bucket, ...] = (
        Bucket(64, 96, 2, 16, 0.5),
        Bucket(96, 144, 1, 10, 0.2),
        Bucket(160, 240, 1, 4, 0.3),  # the working size: places this far apart are met nowhere else
    )
    # TimeColor's curriculum: each protocol joins after the one before, which stays mixed in.
    stages: tuple[Stage, ...] = (Stage(0.1, 1.0, 0.0, 0.0), Stage(0.25, 1.0, 2.0, 0.0), Stage(1.0, 1.0, 1.0, 3.0))
    steps: int = 4_000
    rate: float = 2e-3
    warmup: int = 100
    cooldown: float = 0.3
    ema: float = 0.997
    shift: float = 3.0
    keep_labels: float = 0.5  # share of labelled shots whose labels are used; the others see every reference
    drop_reference: float = 0.05
    drop_hints: float = 0.1
    seed: int = 0
    workers: int = 1
    checkpoint_every: int = 250
    log_every: int = 25
    validate_every: int = 500
    validation_shots: int = 48

    def __post_init__(self) -> None:
        if self.seed == HELD_OUT_SEED:
            raise ValueError(f"seed {self.seed} is the held-out world's; give another")


TOON = Preset()

PRESETS: dict[str, Preset] = {
    "toon": TOON,
    # From weights that know all protocols (`--init`): no curriculum, a lower rate.
    "toon-further": replace(TOON, stages=(Stage(1.0, 1.0, 1.0, 2.0),), rate=1.5e-3, steps=5_000),
    "debug": replace(
        TOON,
        model=ToonConfig(width=64, layers=2, heads=2, hints=True),
        buckets=(Bucket(32, 48, 2, 2, 1.0),),
        steps=4,
        warmup=1,
        workers=0,
        checkpoint_every=2,
        log_every=1,
        validate_every=4,
        validation_shots=2,
    ),
}
