"""numpy, pandas and scikit-learn at work; run by demos/data, natively and in the enclave."""

import numpy as np
import pandas as pd
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

matrix = np.arange(1, 10_001, dtype=float).reshape(100, 100)
print("trace", np.trace(matrix @ matrix.T))

iris = load_iris(as_frame=True)
table: pd.DataFrame = iris.frame
print(table.groupby("target").mean().round(3).to_string())

split = train_test_split(iris.data, iris.target, random_state=0)
train, test, train_y, test_y = split
for model in (LogisticRegression(max_iter=500), RandomForestClassifier(50, random_state=0)):
    accuracy = model.fit(train, train_y).score(test, test_y)
    print(type(model).__name__, "accuracy", round(accuracy, 3))
