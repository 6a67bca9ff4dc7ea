"""Train an object-aware slide classifier on arrays, and ask which object decided.

    python examples/object_aware_mil.py

The arrays are random here, with a cause planted in one kind of object; yours come from
``features.h5`` (``xpath.store.features.read_features``) or from any other pipeline.
"""

# %% forty slides: patches x objects x features, and where each object is present
import torch

from xpath import Bag, ObjectAwareMIL
from xpath.explain.activation import object_activation
from xpath.mil.prediction import predict
from xpath.mil.training import TrainConfig, train

OBJECTS = ["breast-tissue-tumor", "breast-nuclei-lymphocyte", "breast-tissue-stroma", "other"]
generator = torch.Generator().manual_seed(0)
torch.manual_seed(0)  # the weights the model is born with


def slide(number: int) -> Bag:
    """A slide of 20 to 60 patches, whose lymphocytes look different in class 1."""
    patches, label = 20 + number, number % 2
    features = torch.randn(patches, len(OBJECTS), 16, generator=generator)
    features[:, 1] += 1.0 * label
    present = torch.rand(patches, len(OBJECTS), generator=generator) > 0.4
    return Bag(features, present, label, f"slide {number}")


bags = [slide(number) for number in range(40)]

# %% train on thirty, look at ten
model = ObjectAwareMIL(16, OBJECTS, classes=["quiet", "inflamed"])
train(model, bags[:24], bags[24:30], TrainConfig(lr=5e-3, epochs=80, patience=40))
found = predict(model, bags[30:])
print(
    "right:", int((found.probability.argmax(axis=1) == found.label).sum()), "of", len(found.label)
)

# %% why? contributions add up to the logit
why = object_activation(model, bags[31])
for name, value in sorted(zip(why.objects, why.contribution, strict=True), key=lambda p: -p[1]):
    print(f"{value:+.3f}  {name}")
print(f"{why.bias:+.3f}  bias\n{why.logit:+.3f}  logit")
