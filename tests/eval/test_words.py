"""ROUGE-L and exact match of texts in every script; English ones are those of rouge_score."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer

from adakd_jax.eval.exact_match import exact_match
from adakd_jax.eval.rouge import rouge_l
from adakd_jax.eval.table import metric_cells
from adakd_jax.eval.words import AnyScript, needs_any_script
from adakd_jax.reports.gather import RunRecord
from adakd_jax.reports.tables import evaluation_table, headline

TEXTS = {
    "Chinese": "今天天气很好，我们去公园。",
    "Japanese": "東京は日本の首都です。ハンバーガー",
    "Korean": "서울은 대한민국의 수도입니다.",
    "Russian": "Москва — столица России.",
    "Greek": "Η Αθήνα είναι η πρωτεύουσα.",
    "Arabic": "القاهرة هي عاصمة مصر.",
    "Persian": "می‌خواهم کتاب‌ها را بخوانم.",
    "Hebrew": "ירושלים היא עיר בירה.",
    "Hindi": "दिल्ली भारत की राजधानी है।",
    "Tamil": "சென்னை தமிழ்நாட்டின் தலைநகரம்.",
    "Thai": "กรุงเทพเป็นเมืองหลวงของไทย",
    "Burmese": "ရန်ကုန်သည် မြို့ကြီးဖြစ်သည်။",
    "Amharic": "አዲስ አበባ የኢትዮጵያ ዋና ከተማ ናት።",
    "Georgian": "თბილისი საქართველოს დედაქალაქია.",
    "Armenian": "Երևանը Հայաստանի մայրաքաղաքն է։",
    "digits": "١٢٣ ٤٥٦",
    "accents alone": "ÉÀ",
}


@pytest.mark.parametrize("name", TEXTS)
def test_an_exact_match_scores_one_in_every_script(name):
    text = TEXTS[name]
    half = text[: len(text) // 2]
    result = rouge_l([text, half, "", "in English"], [[text]] * 4)
    assert result.scores[0] == 1.0 and result.any_script == 4
    assert 0.0 < result.scores[1] < 1.0 or name in ("digits", "accents alone")
    assert result.scores[2:] == (0.0, 0.0)
    assert exact_match(f" {text} !", [text]) == 1.0
    assert exact_match(half, [text]) == 0.0


def test_what_a_word_is():
    tokenize = AnyScript().tokenize
    assert tokenize("今天用GPT-4 很好。") == ["今", "天", "用", "gpt", "4", "很", "好"]
    assert tokenize("Дом, ДОМ-2!") == ["дом", "дом", "2"]
    assert tokenize("दिल्ली है।") == ["दिल्ली", "है"]
    assert tokenize("น้ำ") == ["น้ํ", "า"]
    assert tokenize("می‌خواهم") == ["میخواهم"]
    assert tokenize("Ｒｕｎｎｉｎｇ runs café cafe\u0301") == ["run", "run", "café", "café"]
    assert tokenize("") == tokenize(" ،。") == []


@given(st.text(st.characters(max_codepoint=127)))
def test_words_of_ascii_are_those_of_rouge_score(text):
    assert AnyScript().tokenize(text) == DefaultTokenizer(use_stemmer=True).tokenize(text)


def test_english_numbers_do_not_change_to_the_last_digit():
    words = ["the", "running", "café", "naïve", "cats", "sat", "—", "on", "“mats”", "3½"]
    words += ["résumé", "π", "Zürich's", "señor", "東京", "x_y"]
    order = random.Random(0)
    texts = [
        " ".join([*order.choices(words, k=9), *order.choices(words[:5], k=12)]) for _ in range(80)
    ]
    pairs = list(zip(texts[:40], texts[40:], strict=True))
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    usual = [scorer.score(reference, answer)["rougeL"].fmeasure for answer, reference in pairs]
    result = rouge_l([answer for answer, _ in pairs], [[reference] for _, reference in pairs])
    assert list(result.scores) == usual and result.any_script == 0


def test_which_words_are_used_depends_on_the_references_alone():
    assert needs_any_script(["使用 TensorFlow 和 PyTorch 训练模型"])
    assert needs_any_script(["an English one", "да и нет, нет и да"])
    assert not needs_any_script(["Japan is written as 日本 in Japanese, and so it was before."])
    assert not needs_any_script(["The ratio π·r² is wrong here"])
    assert not needs_any_script(["", "?!"]) and not needs_any_script([])
    mixed = rouge_l(["用 TensorFlow", "用 TensorFlow"], [["用 TensorFlow 吧"], ["use TensorFlow"]])
    assert mixed.scores == pytest.approx((4 / 5, 2 / 3)) and mixed.any_script == 1


def test_the_table_says_which_words():
    result = {"rouge_l": 0.5, "rouge_l_low": 0.4, "rouge_l_high": 0.6}
    assert list(metric_cells({"model": result})) == ["ROUGE-L"]
    other = {**result, "rouge_l_any_script": 3}
    assert list(metric_cells({"model": result, "b": other})) == ["ROUGE-L, words of any script"]
    for values, title in ((result, "ROUGE-L × 100"), (other, "ROUGE-L × 100, words of any script")):
        run = RunRecord("run", {}, evaluations={"after": {**values, "tokens": 9}})
        assert evaluation_table([run]).titles == [title]
        assert [name for name, *_ in headline(run)] == [title]
