"""Gradient boosting on data made here; run by demos/xgboost in the enclave."""

import numpy as np
import xgboost

generator = np.random.default_rng(0)
features = generator.normal(size=(4000, 10))
labels = (features[:, 0] * features[:, 1] + features[:, 2] > 0).astype(int)
train = xgboost.DMatrix(features[:3000], labels[:3000])
test = xgboost.DMatrix(features[3000:], labels[3000:])
options = {"objective": "binary:logistic", "max_depth": 4, "eta": 0.3, "nthread": 2}
model = xgboost.train(options, train, num_boost_round=30)
accuracy = float(((model.predict(test) > 0.5) == labels[3000:]).mean())
print("accuracy", round(accuracy, 3))
assert accuracy > 0.85, "the model has learned nothing"
