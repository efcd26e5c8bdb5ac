"""The small package of the course *Pruning, Proven*. Open any file: they are short, and read best in this order.

contests challenges lotteries profiles files progress bodies scenes solids data archives download shelf pictures
sources masks heads channels vits models zoo fitting shrunken measure checkpoints train distill calibration gradients
scores scopes curvature units importance kinds proof walks attentions naming graphs plan activity slimming readings
regression rebuild budgets arenas sparse speed reach grains patterns spending clock sinks schedules tickets keys trials
parents intervals claims outcomes plots sketches exercises answers_00 answers_01 answers_02 answers_03 answers_04
answers_05 answers_06 answers_07 answers_08 answers_09 answers_10 answers_11 answers_12 preflight report execution
engines batch clusters stamps conditions summaries sweep dist folders classifiers evaluation prune teachers options
states epochs pupils tuning launch husks drift adopt tidy

A module imports only from those before it (tests/test_meta.py reads this list and refuses anything else).
"""
