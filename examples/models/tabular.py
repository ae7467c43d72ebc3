"""Makes tabular/*.onnx, which are kept in the repository: tabular.py, with scikit-learn and skl2onnx.

Two small models on data that scikit-learn brings along: irises by the measures of their leaves, and
tumours by what a microscope shows, of which some may be missing (they are taken for the mean). Their
bytes depend on the versions of the libraries, so they are made once and not by scripts/models.sh:

    pip install scikit-learn==1.9.1 skl2onnx==1.20.0
"""

import pathlib

from skl2onnx import to_onnx
from sklearn import datasets
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

HERE = pathlib.Path(__file__).parent / "tabular"


def write(name, data, steps):
    rows = data.data.astype("float32")
    model = make_pipeline(*steps, LogisticRegression(max_iter=1000)).fit(rows, data.target)
    graph = to_onnx(model, rows[:1], options={"zipmap": False}, target_opset=17)
    (HERE / f"{name}.onnx").write_bytes(graph.SerializeToString())
    print(f"{name}: {model.score(rows, data.target):.3f} of its own rows are right")


def main():
    HERE.mkdir(exist_ok=True)
    write("iris", datasets.load_iris(), [StandardScaler()])
    write("breast-cancer", datasets.load_breast_cancer(), [SimpleImputer(), StandardScaler()])


if __name__ == "__main__":
    main()
