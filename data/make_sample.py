"""Write data/sample: a few hundred invented rows per task, in the course's own format.

    python data/make_sample.py [--to DIR] [--seed 11711]

The sample lets everything run before anything is downloaded. All its text is below, written for this project:
clauses about films that frames join into reviews, topics whose questions pair up, scenes told in five degrees
of likeness. Every list is dealt out six at a time (`share`): four items to train, one to dev, one to test. So
no split repeats a clause, a topic or a scene of another. The same seed writes the same bytes.
"""

import argparse
import csv
import hashlib
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

SIZES = {"train": 300, "dev": 80, "test-student": 60}
SHARES = {"train": (0, 1, 2, 3), "dev": (4,), "test-student": (5,)}

Row = tuple[str, ...]  # the texts of one row, then its label


def share(items: list, split: str) -> list:
    """The items of `split`: of every six, the first four are train's, then one is dev's and one test's."""
    return [item for i, item in enumerate(items) if i % 6 in SHARES[split]]


def treebank(text: str) -> str:
    """Space `text` as SST is spaced, with a blank before all: " It 's short , and it is n't dull ."."""
    text = re.sub(r"(n't|'s)\b", r" \1", text)
    text = re.sub(r"([,.;:])(?= |$)", r" \1", text)
    return f" {text[0].upper()}{text[1:]}"


def sst_sentence(label: int, split: str, rng: random.Random) -> str:
    """A frame of that label, its slots filled; no two clauses in it speak of the same side of the film."""
    aspects = iter(rng.sample(sorted(CLAUSES), 2))

    def fill(slot: re.Match) -> str:
        options = CLAUSES[next(aspects)][int(slot[1])] if slot[1].isdigit() else WORDS[slot[1]]
        return rng.choice(share(options, split))

    return treebank(re.sub(r"\{(\w+)\}", fill, rng.choice(FRAMES[label])))


def sst_rows(split: str, size: int, rng: random.Random) -> list[Row]:
    """`size` different reviews (sentence, label), as many of each of the five labels."""
    rows: dict[str, str] = {}
    while len(rows) < size:
        label = len(rows) % 5
        rows.setdefault(sst_sentence(label, split, rng), str(label))
    return list(rows.items())


class Topic(NamedTuple):
    """Questions of one meaning, two near them of another, and what {0} and {1} can be ("{0}/{1}")."""

    same: tuple[str, str, str]
    near: tuple[str, str]
    fills: tuple[str, str, str, str]


def quora_rows(split: str, size: int, rng: random.Random) -> list[Row]:
    """`size` different question pairs (sentence1, sentence2, is_duplicate), 40% of them duplicates."""
    topics = share(TOPICS, split)
    rows: dict[Row, str] = {}
    while len(rows) < size:
        turn, at = divmod(len(rows), len(topics))
        kind = ("same", "near", "swap", "same", "near", "other", "same", "swap", "same", "near")[turn % 10]
        same, near, fills = topics[at]
        first, second = rng.sample(same, 2)
        fill = second_fill = rng.choice(fills)
        if kind == "near":  # the same things are named, something else is asked
            second = rng.choice(near)
        elif kind == "swap":  # the same is asked about another thing, often in the very same words
            second, second_fill = rng.choice(same), rng.choice([other for other in fills if other != fill])
        elif kind == "other":
            second, second_fill = rng.choice(topics[at - 1].same), rng.choice(topics[at - 1].fills)
        pair = (first.format(*fill.split("/")), second.format(*second_fill.split("/")))
        rows.setdefault(tuple(sorted(pair)), "1.0" if kind == "same" else "0.0")
    return [(*rng.sample(pair, 2), label) for pair, label in rows.items()]


class Scene(NamedTuple):
    """A sentence, five others that are like it to the degrees 5, 4, 3, 2, 1, and what {0} can be."""

    told: tuple[str, str, str, str, str, str]
    fills: tuple[str, str, str]


def sts_rows(split: str, size: int, rng: random.Random) -> list[Row]:
    """`size` different pairs (sentence1, sentence2, similarity), as many near each of 0, 1, ..., 5.

    A score strays from its whole number by up to 0.4, like the mean of several people's scores.
    """
    scenes = share(SCENES, split)
    rows = []
    for k in range(size):
        turn, at = divmod(k, len(scenes))
        fill_turn, degree = divmod(turn, 6)
        told, fills = scenes[at]
        first = told[0].format(fills[fill_turn])
        if degree == 0:
            told, fills = scenes[at - 1]  # to another scene there is no likeness
        second = told[(6 - degree) % 6].format(fills[fill_turn])
        score = min(5.0, max(0.0, degree + rng.choice((-0.4, -0.2, 0.0, 0.2, 0.4))))
        rows.append((*rng.sample((first, second), 2), f"{score:.1f}"))
    return rows


LABELS = ("entailment", "neutral", "contradiction")


def nli_rows(split: str, size: int, rng: random.Random) -> list[Row]:
    """`size` different pairs (premise, hypothesis, label), the three labels in turn.

    Of a scene's tellings the second says what the first says, the third adds to it, and the fourth is something else
    about the same moment: from either of the first two, entailed, neither, contradicted.
    """
    scenes = share(SCENES, split)
    rows = []
    for k in range(size):
        turn, at = divmod(k, len(scenes))
        told, fills = scenes[at]
        label = (turn + at) % 3
        premise = turn // 3 % 2
        hypothesis = (1 - premise, 2, 3)[label]
        fill = fills[turn // 6]
        rows.append((told[premise].format(fill), told[hypothesis].format(fill), LABELS[label]))
    return rows


class Task(NamedTuple):
    """How a task's files are named, their columns (the label last), what makes their rows, and which there are."""

    prefix: str
    columns: tuple[str, ...]
    rows: Callable[[str, int, random.Random], list[Row]]
    splits: tuple[str, ...] = tuple(SIZES)


TASKS = (
    Task("ids-sst", ("sentence", "sentiment"), sst_rows),
    Task("quora", ("sentence1", "sentence2", "is_duplicate"), quora_rows),
    Task("sts", ("sentence1", "sentence2", "similarity"), sts_rows),
    Task("nli", ("premise", "hypothesis", "label"), nli_rows, ("train", "dev")),
)


def write(path: Path, task: Task, rows: list[Row]) -> None:
    """Write `rows` as the course does: no label in test files, and one more column of numbers in SST's."""
    is_test = path.stem.endswith("test-student")
    is_sst_test = is_test and task.prefix == "ids-sst"
    columns = task.columns[:-1] if is_test else task.columns
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow([*(("0", "") if is_sst_test else ("",)), "id", *columns])
        for i, row in enumerate(rows):
            row_id = hashlib.sha1(f"{path.name}:{i}".encode()).hexdigest()[:25]
            numbers = (i + 1, float(i)) if is_sst_test else (i,)
            writer.writerow([*numbers, row_id, *row[: len(columns)]])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write the sample data.")
    parser.add_argument("--to", type=Path, default=Path(__file__).resolve().parent / "sample", metavar="DIR")
    parser.add_argument("--seed", type=int, default=11711)
    args = parser.parse_args(argv)
    args.to.mkdir(parents=True, exist_ok=True)
    for task in TASKS:
        for split in task.splits:
            path = args.to / f"{task.prefix}-{split}.csv"
            rng = random.Random(f"{args.seed} {path.name}")
            rows = task.rows(split, SIZES[split], rng)
            rng.shuffle(rows)
            write(path, task, rows)


# ---- SST: what is said of a film -------------------------------------------------------------------------

# A digit stands for a clause of that sentiment, a word for one of WORDS. What is conceded ("though ...")
# weighs less than what is asserted, and takes the edge off it.
FRAMES = {
    0: ["{0}.", "{0}, and {0}.", "{0}, and {1}.", "{name} has made a {genre}, and {0}.",
        "This is a {genre} about {who}: {0}.", "It isn't just that {1}: {0}.", "Whatever its merits, {0}."],
    1: ["{1}.", "{1}, and {1}.", "Though {3}, {1}.", "{3}, but {1}.", "Though {3}, {0}.",
        "{name} has made a {genre}, and {1}.", "This is a {genre} about {who}; {3}, but {1}."],
    2: ["{who} {event}.", "The film follows {who} who {event}.", "{name} plays {who} who {event}.",
        "In this {genre}, {who} {event}.", "It's the story of {who} who {event}.",
        "Some will say that {3}, others that {1}.", "{1}, yet {3}, and the two cancel out."],
    3: ["{3}.", "{3}, and {3}.", "Though {1}, {3}.", "{1}, but {3}.", "Though {1}, {4}.",
        "{name} has made a {genre}, and {3}.", "This is a {genre} about {who}; {1}, but {3}."],
    4: ["{4}.", "{4}, and {4}.", "{4}, and {3}.", "{name} has made a {genre}, and {4}.",
        "This is a {genre} about {who}: {4}.", "It isn't just that {3}: {4}.", "Whatever its flaws, {4}."],
}  # fmt: skip

CLAUSES = {
    "acting": {
        4: ["the whole cast is magnificent", "the lead performance is one of the finest in years",
            "every actor in it, down to the smallest part, is unforgettable",
            "nobody in it could have been better",
            "the two leads give the performances of their lives",
            "the acting is nothing short of miraculous"],
        3: ["the cast is likeable enough to carry it", "the actors play well together",
            "the supporting players are a quiet pleasure", "the young lead isn't half bad",
            "the performances are solid and never showy", "the actors clearly enjoy one another's company"],
        1: ["the cast never quite convinces", "the acting is a little wooden",
            "the young lead isn't up to the part",
            "some likeable actors are given too little to do",
            "the performances don't leave much of an impression", "the star seems slightly bored"],
        0: ["the acting is dreadful from first to last", "not one member of the cast can act",
            "the lead performance is an embarrassment", "nobody in it could have been worse",
            "everyone on screen is painful to watch", "the star has never been so appallingly bad"],
    },
    "story": {
        4: ["the story is a marvel of invention", "the plot surprises at every turn and never cheats",
            "no story this year has been told with more heart", "the script is dazzling",
            "the writing is as wise as it is thrilling", "the tale it tells is profoundly moving"],
        3: ["the story holds the attention", "the plot is simple but sensibly told",
            "the script isn't without charm", "the premise is fresh enough",
            "the writing has some wit to it", "the tale is familiar but pleasant"],
        1: ["the story has been told better elsewhere", "the plot doesn't quite hold together",
            "the script could have used another draft", "the premise is thinner than it looks",
            "the writing rarely rises above the ordinary", "the tale never finds its point"],
        0: ["the story is idiotic", "the plot makes no sense whatsoever",
            "the script is an insult to anyone over the age of five",
            "no story this year has been told with less heart",
            "the writing is beyond awful", "the tale it tells is pure rubbish"],
    },
    "humor": {
        4: ["the jokes are brilliant from start to finish", "it's the funniest thing on a screen this year",
            "you won't stop laughing for a week", "every gag is a small work of genius",
            "the comedy is gloriously funny", "the wit is razor-sharp in every single line"],
        3: ["the jokes land more often than they miss", "there are several good laughs along the way",
            "the humor is gentle and mostly works", "it's funnier than you might expect",
            "the comedy raises more than a few smiles", "the banter is rather amusing"],
        1: ["the jokes miss more often than they land", "it isn't as funny as it thinks it is",
            "the humor wears thin before long", "there are only one or two good laughs along the way",
            "the comedy feels a bit forced", "the banter seldom raises a smile"],
        0: ["the jokes are abysmal from start to finish", "it's about as funny as a broken leg",
            "you won't laugh once", "every gag is stale, crude or cruel",
            "the comedy is excruciating", "there's more wit in a parking ticket"],
    },
    "look": {
        4: ["every frame is breathtaking", "the photography is astonishingly beautiful",
            "no lovelier picture has been released this year", "you could hang any shot of it in a museum",
            "the images are simply stunning", "it's a feast for the eyes from beginning to end"],
        3: ["the photography is handsome", "the locations are pleasant to look at",
            "it has a nice eye for small details", "the sets are done with care",
            "the images have a modest beauty", "the costumes are rather lovely"],
        1: ["the photography is a little drab", "it looks cheaper than it should",
            "the sets aren't done with much care", "too many scenes are hard to make out",
            "the images are on the flat side", "the costumes look borrowed"],
        0: ["it's hideous to look at", "the photography is so murky that it hurts the eyes",
            "the effects are a disgrace", "no uglier picture has been released this year",
            "the images are revolting", "it looks as if it had been shot through a dirty sock"],
    },
    "pace": {
        4: ["two hours fly by like ten minutes", "there isn't one wasted second", "the suspense is exquisite",
            "the pacing is flawless",
            "it grips you from the opening shot and never lets go",
            "it could run all night and still be too short"],
        3: ["it moves along nicely", "there's hardly a dull minute", "it keeps up a decent tension",
            "it doesn't outstay its welcome", "the pace is brisk enough", "it seldom drags"],
        1: ["it drags in the middle", "it takes too long to get going", "it doesn't keep up the tension",
            "it outstays its welcome", "the pace is somewhat sluggish",
            "it would have been better at half the length"],
        0: ["it's mind-numbingly dull", "ten minutes of it feel like two hours", "the boredom is unbearable",
            "every second of it is wasted", "watching paint dry would be less of a torture",
            "it crawls along until you beg for mercy"],
    },
    "music": {
        4: ["the music is glorious", "the score is the most ravishing in a decade",
            "the songs are unforgettable",
            "no soundtrack has ever been so enchanting",
            "the music soars and takes you with it", "the score is an absolute triumph"],
        3: ["the music is easy on the ear", "the songs are catchy", "the score suits the mood",
            "the soundtrack has its moments", "the music adds some warmth",
            "the score is pleasantly old-fashioned"],
        1: ["the music is rather intrusive", "the songs aren't very catchy", "the score tries too hard",
            "the soundtrack doesn't suit the mood", "the music is a bit much",
            "the score soon repeats itself"],
        0: ["the music is an assault on the ear", "the songs are atrocious", "the score is unlistenable",
            "no soundtrack has ever been so grating", "the music is sheer noise", "the score is horrendous"],
    },
    "ending": {
        4: ["the ending is devastating and perfect",
            "the last ten minutes are among the greatest ever filmed",
            "the final scene couldn't be more moving",
            "the finale had the whole theater on its feet and cheering",
            "the climax is pure magic", "the closing shot will stay with you for ever"],
        3: ["the ending is satisfying", "it comes together in the last act",
            "the final scene is rather touching",
            "it ends better than it begins", "the climax doesn't disappoint", "the closing scenes pay off"],
        1: ["the ending is a letdown", "it comes apart a little in the last act",
            "the final scene doesn't ring true", "it begins better than it ends",
            "the climax isn't worth the wait", "the closing scenes feel rushed"],
        0: ["the ending is a slap in the face", "the last act is a complete disaster",
            "the final scene is laughably bad", "the finale had the whole theater on its feet and leaving",
            "the climax is unforgivably stupid", "the closing scenes are a fiasco"],
    },
    "whole": {
        4: ["it's a masterpiece", "it's the best film of the year by a mile",
            "nothing about it could be improved",
            "it's an extraordinary achievement", "it's a triumph in every respect", "you must not miss it"],
        3: ["it's worth seeing", "it's a decent way to spend an evening",
            "it's far from the disaster that the trailer promised", "it does what it sets out to do",
            "it's a likeable little film", "there's nothing much wrong with it"],
        1: ["it's hard to recommend", "there are better ways to spend an evening",
            "it's far from the masterpiece that the trailer promised", "it doesn't do what it sets out to do",
            "it's a forgettable little film", "there's nothing much to remember in it"],
        0: ["it's a catastrophe", "it's the worst film of the year by a mile",
            "nothing about it could be worse",
            "it's a waste of everybody's time", "it's a failure in every respect",
            "you must avoid it at all costs"],
    },
}  # fmt: skip

WORDS = {
    "genre": ["western", "thriller", "road movie", "ghost story", "heist film", "family comedy",
              "courtroom drama", "war film", "musical", "love story", "spy film", "science-fiction film",
              "satire", "costume drama", "crime film", "cartoon", "horror film", "murder mystery"],
    "name": ["Zoë Lindqvist", "Marta Oyelaran", "Pavel Duarte", "Hanna Brightwater", "Ines Kowalczuk",
             "Tomás Achterberg",
             "Jonas Whitlock", "Ama Ferreira", "Ruth Castellane", "Noor Hallström", "Piet Okafor",
             "Clara Vandermeer",
             "Olga Sandoval", "Yusuf Merriweather", "Lena Zubkova", "Bruno Ashgrove", "Mei Santangelo",
             "Viktor Ngata"],
    "who": ["a retired ferryman", "a young violinist", "a village doctor", "a taxi driver from Naples",
            "a piano tuner", "a lighthouse keeper",
            "a widowed beekeeper", "a night watchman", "a chess teacher", "a ship's cook",
            "a customs officer", "a country vet",
            "a judge", "a young widow from Porto", "a bank clerk", "a former boxer", "a wedding photographer",
            "a student of medicine"],
    "event": ["inherits a house by the sea", "takes a job in the capital",
              "finds a letter from 1952 under the floor",
              "drives across the country with a stranger", "buys a boat at an auction",
              "opens a bakery in a port",
              "spends a winter in the mountains", "meets an old friend on a night train",
              "agrees to look after a neighbor's child", "enters a singing contest",
              "waits for a phone call in a café", "walks from Paris to Rome",
              "moves back to Málaga", "writes for a newspaper and calls every film a \"masterpiece\"",
              "loses a suitcase and goes to find it", "is hired to guard an empty hotel",
              "is asked to give evidence in court", "keeps a diary during a strike",
              "shares a flat with three musicians", "is mistaken for a famous tenor", "learns to fly",
              "returns to school at the age of sixty", "crosses a desert on foot", "sells the family farm"],
}  # fmt: skip


# ---- Quora: what is asked --------------------------------------------------------------------------------

TOPICS = [
    Topic(("How can an adult learn to play the {0}?", "How can a grown-up learn to play the {0}?",
           "I left school long ago: what is a good way to pick up the {0} as a beginner?"),
          ("How can an adult learn to teach the {0}?", "How can an adult learn to repair the {0}?"),
          ("cello", "trumpet", "banjo", "harp")),
    Topic(("Does a citizen of {0} need a visa to visit {1}?",
           "Is a visa required for a citizen of {0} to visit {1}?",
           "Can people from {0} travel to {1} on their passport alone?"),
          ("Does a citizen of {1} need a visa to visit {0}?", "Where is the embassy of {0} in {1}?"),
          ("Chile/Japan", "Kenya/Turkey", "Norway/Vietnam", "Ghana/Peru")),
    Topic(("What should I eat before running {0}?", "What is it best to eat before running {0}?",
           "Which breakfast gives a runner enough energy for {0}?"),
          ("What should I eat after running {0}?", "What should I wear when running {0}?"),
          ("5 kilometers", "10 kilometers", "a half marathon", "a marathon")),
    Topic(("What does \"{0}\" mean in a text message?", "What is the meaning of \"{0}\" in a text message?",
           "My friend ended her text with \"{0}\": what was she trying to say?"),
          ("Is it rude to write \"{0}\" in a text message?",
           "Who was the first to write \"{0}\" in a text message?"),
          ("smh", "tl;dr", "ymmv", "afaik")),
    Topic(("How do I get {0} stains out of a white shirt?", "How do I remove {0} stains from a white shirt?",
           "I spilled {0} on my best white shirt: is there any way to save it?"),
          ("How do I get {0} stains out of a white carpet?", "Why does {0} leave stains on a white shirt?"),
          ("coffee", "red wine", "ketchup", "ink")),
    Topic(("How long can cooked {0} be kept in the fridge?",
           "How many days can cooked {0} be kept in the fridge?",
           "When do leftovers of {0} become unsafe to eat, even if they are chilled?"),
          ("How long can raw {0} be kept in the fridge?", "How long can cooked {0} be kept in the freezer?"),
          ("rice", "chicken", "salmon", "pumpkin")),
    Topic(("Is {0} harder to learn than {1}?", "Is it harder to learn {0} than {1}?",
           "Would I find {1} an easier language than {0}?"),
          ("Is {1} harder to learn than {0}?", "Is {0} more useful than {1}?"),
          ("Finnish/Italian", "Polish/Danish", "Korean/Malay", "Arabic/Swahili")),
    Topic(("Why do {0} sleep so much?", "Why is it that {0} sleep so much?",
           "What makes {0} doze for most of the day?"),
          ("How do {0} sleep when it is cold?", "Where do {0} sleep?"),
          ("koalas", "cats", "bats", "sloths")),
    Topic(("Can a landlord in {0} raise the rent without notice?",
           "May a landlord in {0} raise the rent without notice?",
           "In {0}, does the owner have to warn me before charging me more for my flat?"),
          ("Can a tenant in {0} leave without notice?",
           "Can a landlord in {0} enter my flat without notice?"),
          ("Oregon", "Ontario", "Scotland", "Québec")),
    Topic(("How many {0} are there in the world?", "What is the number of {0} in the world?",
           "Has anyone counted all the {0} on Earth, and what was the total?"),
          ("Why are there so many {0} in the world?", "How many {0} are there in Iceland?"),
          ("volcanoes", "airports", "bicycles", "lighthouses")),
    Topic(("How do I stop my puppy from biting {0}?", "How can I keep my puppy from biting {0}?",
           "Our young dog keeps sinking his teeth into {0}: what will cure him of it?"),
          ("How do I train my puppy to fetch {0}?", "Is it dangerous for my puppy to swallow {0}?"),
          ("shoes", "cushions", "table legs", "toys")),
    Topic(("What is the best time of year to visit {0}?", "When is the best time of year to visit {0}?",
           "In which season should I plan my trip to {0}?"),
          ("What is the best way to get to {0}?", "What is the best neighborhood to live in in {0}?"),
          ("Kraków", "Marrakesh", "Hanoi", "Buenos Aires")),
    Topic(("Why did {0} lose the election in {1}?", "What made {0} lose the election of {1}?",
           "What cost {0} so many votes in {1}?"),
          ("Why did {0} win the election in {1}?", "Why did {0} call an election in {1}?"),
          ("the Liberals/1998", "the Liberals/2007", "the Conservatives/1998", "the Greens/2013")),
    Topic(("How do I change a {0} tire?", "How do you change a {0} tire?",
           "I have a flat on my {0}: what are the steps for putting on the spare?"),
          ("How much does a {0} tire cost?", "How do I check the pressure of a {0} tire?"),
          ("car", "truck", "motorcycle", "trailer")),
    Topic(("Should I study {0} or {1}?", "Which should I study, {0} or {1}?",
           "I can't decide on a degree: would {1} suit me better than {0}?"),
          ("Can I study both {0} and {1}?", "What is the difference between {0} and {1}?"),
          ("physics/chemistry", "law/history", "nursing/biology", "music/mathematics")),
    Topic(("How can I tell if a {0} is ripe?", "How do I know whether a {0} is ripe?",
           "What are the signs that a {0} is ready to eat?"),
          ("How can I make a {0} ripen faster?", "How can I stop a {0} from ripening?"),
          ("mango", "melon", "pineapple", "papaya")),
    Topic(("How do I ask my boss for {0}?", "How should I ask my boss for {0}?",
           "What is the right way to raise the subject of {0} with the person I work for?"),
          ("Why won't my boss give me {0}?", "How do I thank my boss for {0}?"),
          ("a raise", "a day off", "a reference", "more training")),
    Topic(("Is it safe to drink {0} during pregnancy?", "Is drinking {0} safe during pregnancy?",
           "I'm expecting a baby: could {0} do us any harm?"),
          ("Is it safe to drink {0} before surgery?", "Why do I crave {0} during pregnancy?"),
          ("green tea", "coffee", "tonic water", "raw milk")),
    Topic(("How do I delete my {0} account?", "How can I delete my {0} account?",
           "I no longer want to use {0}: how do I make my profile disappear for good?"),
          ("How do I recover my deleted {0} account?", "How do I open a second {0} account?"),
          ("Reddit", "Spotify", "Instagram", "Skype")),
    Topic(("Why is the sky {0} at {1}?", "Why does the sky look {0} at {1}?",
           "What gives the air above us its {0} color at {1}?"),
          ("Why isn't the sky {0} at {1}?", "Which camera setting makes a {0} sky at {1} look right?"),
          ("red/sunset", "blue/noon", "black/night", "pink/dawn")),
    Topic(("Who invented the {0}?", "Who was the inventor of the {0}?",
           "To whom do we owe the idea of the {0}?"),
          ("Who invented the word \"{0}\"?", "When was the {0} invented?"),
          ("zipper", "elevator", "thermometer", "stapler")),
    Topic(("Can I take {0} on a plane?", "Can I bring {0} on a plane?",
           "Will airport security make me throw {0} away?"),
          ("Can I buy {0} on a plane?", "Can I send {0} by mail?"),
          ("a pocket knife", "a jar of honey", "a lighter", "a houseplant")),
    Topic(("What happens if I don't pay {0}?", "What will happen if I do not pay {0}?",
           "How much trouble can I get into by ignoring {0}?"),
          ("What happens if I pay {0} twice?", "Where can I pay {0}?"),
          ("a parking fine", "a library fine", "a hospital bill", "my income tax")),
    Topic(("How do I beat my {0} at chess?", "How can I beat my {0} at chess?",
           "What should I practice so that my {0} no longer wins every game of chess against me?"),
          ("How do I teach my {0} to play chess?", "How does my {0} always beat me at chess?"),
          ("father", "neighbor", "sister", "teacher")),
    Topic(("How do I keep {0} out of my garden?", "How can I keep {0} out of my garden?",
           "My vegetables are being eaten by {0}: how do I get rid of them?"),
          ("How do I attract {0} to my garden?", "How do I keep {0} in my garden through the winter?"),
          ("rabbits", "snails", "deer", "pigeons")),
    Topic(("How old is the {0}?", "What is the age of the {0}?",
           "How many years ago did the {0} come into being?"),
          ("How hot is the {0}?", "How big is the {0}?"),
          ("sun", "moon", "Milky Way", "Atlantic Ocean")),
    Topic(("How do I turn {0} into {1}?", "How can I convert {0} into {1}?",
           "What do I multiply a number of {0} by to get {1}?"),
          ("How do I turn {1} into {0}?", "Why do some countries use {0} instead of {1}?"),
          ("miles/kilometers", "pounds/kilograms", "inches/centimeters", "gallons/liters")),
    Topic(("Why does my {0} hurt when I swim?", "Why do I feel pain in my {0} when I swim?",
           "After every lap in the pool my {0} is sore: what is causing it?"),
          ("Why does my {0} hurt when I stop swimming?", "Can swimming cure the pain in my {0}?"),
          ("shoulder", "knee", "neck", "lower back")),
    Topic(("Which {0} should I buy for less than ${1}?", "What {0} should I buy for under ${1}?",
           "I have ${1} to spend: what is a {0} worth having at that price?"),
          ("Which {0} should I sell for more than ${1}?", "Why does a {0} cost less than ${1}?"),
          ("bicycle/300", "bicycle/900", "laptop/300", "camera/900")),
    Topic(("Did {0} ever meet {1}?", "Did {0} and {1} ever meet?",
           "Is there any record of {1} being in the same room as {0}?"),
          ("Did {0} ever write about {1}?", "Did {0} die before {1}?"),
          ("Mozart/Beethoven", "Darwin/Marx", "Newton/Leibniz", "Goya/Napoleon")),
    Topic(("How do I get my child to eat {0}?", "How can I get my child to eat {0}?",
           "My son pushes his plate away whenever there are {0} on it: what can I do?"),
          ("How do I get my child to stop eating {0}?", "How do I get my child to cook {0}?"),
          ("vegetables", "lentils", "eggs", "mushrooms")),
    Topic(("What is it like to work as a {0}?", "What is it like to have a job as a {0}?",
           "Could a {0} describe an ordinary day at work?"),
          ("What is it like to be married to a {0}?", "How do I find work as a {0}?"),
          ("firefighter", "translator", "dentist", "pilot")),
    Topic(("How do I fall asleep when {0}?", "How can I fall asleep when {0}?",
           "I lie awake for hours if {0}: what would help me to drift off?"),
          ("How do I stay awake when {0}?", "Why do I fall asleep when {0}?"),
          ("it is hot", "the neighbors are loud", "I am worried", "the moon is bright")),
    Topic(("Is {0} bigger than {1}?", "Is {0} larger than {1}?", "Does {1} cover less ground than {0}?"),
          ("Is {1} bigger than {0}?", "Is {0} richer than {1}?"),
          ("Portugal/Hungary", "Texas/France", "Laos/Nepal", "Utah/Idaho")),
    Topic(("How long should I boil {0}?", "For how long should I boil {0}?",
           "After how many minutes in bubbling water are {0} done?"),
          ("How long should I bake {0}?", "How much salt should I use when I boil {0}?"),
          ("potatoes", "dumplings", "green beans", "artichokes")),
    Topic(("How do I write {0} for a friend?", "How should I write {0} for a friend?",
           "A pal needs {0} from me: any advice on putting it into words?"),
          ("How do I ask a friend to write {0} for me?", "How do I get {0} from a friend published?"),
          ("a wedding speech", "a birthday poem", "a letter of support", "a retirement speech")),
    Topic(("Why do {0} charge so much for {1}?", "Why do {0} ask so much money for {1}?",
           "What makes {1} so expensive at {0}?"),
          ("Why do {0} charge so little for {1}?", "Why do so many {0} refuse to sell {1}?"),
          ("cinemas/popcorn", "hotels/breakfast", "airports/water", "garages/brakes")),
    Topic(("How do I stop {0} from freezing in winter?", "How can I stop {0} from freezing in winter?",
           "It gets far below zero here: what protects {0} from turning to ice?"),
          ("How do I stop {0} from rusting in winter?", "How do I thaw {0} in winter?"),
          ("water pipes", "a car lock", "a garden hose", "a pond pump")),
    Topic(("Which city has more {0}, {1} or {2}?", "Which of the cities {1} and {2} has more {0}?",
           "Would I come across a greater number of {0} in {1} or in {2}?"),
          ("Which city has better {0}, {1} or {2}?", "Which city has older {0}, {1} or {2}?"),
          ("bridges/Venice/Hamburg", "museums/Vienna/Madrid", "parks/London/Oslo", "trams/Zürich/Lyon")),
    Topic(("How can I improve my {0} before an interview?", "How do I improve my {0} before an interview?",
           "I have a meeting with an employer soon: what can I do about my weak {0}?"),
          ("How can I describe my {0} during an interview?",
           "How can I test a person's {0} in an interview?"),
          ("English", "typing", "mental arithmetic", "posture")),
    Topic(("Is {0} a good pet for a small flat?", "Would {0} be a good pet for a small flat?",
           "I live in a single room: could I keep {0} happy there?"),
          ("Is {0} a good gift for a small child?", "How much food does {0} in a small flat need?"),
          ("a rabbit", "a parrot", "a greyhound", "a tortoise")),
    Topic(("Why was {0} built?", "For what reason was {0} built?",
           "What purpose was {0} meant to serve at first?"),
          ("How was {0} built?", "Who built {0}?"),
          ("Hadrian's Wall", "the Suez Canal", "the Alhambra", "Angkor Wat")),
    Topic(("What should I do if I see a {0} while hiking?", "What do I do if I see a {0} while hiking?",
           "How ought a walker to behave on meeting a {0} on the trail?"),
          ("Where should I go hiking if I want to see a {0}?",
           "What should I do if a {0} bites me while I hike?"),
          ("bear", "snake", "wolf", "wild boar")),
    Topic(("Can {0} see in the dark?", "Are {0} able to see in the dark?",
           "Are the eyes of {0} any use at night?"),
          ("Can {0} be seen in the dark?", "Are {0} afraid of the dark?"),
          ("owls", "horses", "goldfish", "spiders")),
    Topic(("How do I say no to {0} politely?", "How can I say no to {0} politely?",
           "What is a kind way of turning down {0}?"),
          ("How do I say yes to {0} politely?", "How do I deal with {0} that wasn't polite?"),
          ("an invitation", "a marriage proposal", "a job offer", "a loan request")),
    Topic(("How much does it cost to {0}?", "What does it cost to {0}?",
           "How big a budget would I need in order to {0}?"),
          ("How long does it take to {0}?", "Do I need a permit to {0}?"),
          ("build a sauna", "publish a novel", "open a café", "move a piano")),
    Topic(("Does {0} help against {1}?", "Is {0} any help against {1}?",
           "I suffer from {1}: is it worth trying {0}?"),
          ("Does {0} cause {1}?", "Do people with {1} enjoy {0}?"),
          ("yoga/headaches", "ginger/seasickness", "swimming/asthma", "chamomile/insomnia")),
    Topic(("Who teaches {0} to {1}?", "Who gives {1} lessons in {0}?",
           "Where might {1} find somebody to instruct them in {0}?"),
          ("Who says that {0} is bad for {1}?", "What can {1} teach us about {0}?"),
          ("fencing/children", "fencing/pensioners", "coding/children", "first aid/drivers")),
]  # fmt: skip


# ---- STS: what is seen, reported and remarked ------------------------------------------------------------

SCENES = [
    Scene(("A man is slicing {0} at a wooden table.", "At a wooden table, a man cuts {0} into thin pieces.",
           "A man is slicing {0} at a small table.", "A woman is slicing {0} at a wooden table.",
           "A man is sitting at a wooden table.", "A woman is washing the dishes."),
          ("an onion", "a cucumber", "a lemon")),
    Scene(("Two children are building a {0} on the beach.", "On the beach, a pair of kids are making a {0}.",
           "Two children are building a big {0} on the sunny beach.",
           "Two children are kicking down a {0} on the beach.",
           "Two children are running along the beach.", "A lifeguard is watching the waves."),
          ("sandcastle", "tower of pebbles", "driftwood hut")),
    Scene(("The mayor of {0} resigned on Friday after a scandal.",
           "A scandal made {0}'s mayor step down on Friday.",
           "The mayor of {0} resigned last week after a scandal.",
           "The mayor of {0} refused to resign over a scandal.",
           "The mayor of {0} opened a new school on Friday.",
           "Voters will choose a new city council in the spring."),
          ("Tampere", "Córdoba", "Leeds")),
    Scene(("Storm leaves {0} homes without power", "{0} households lose electricity in storm",
           "Winter storm leaves about {0} homes without power", "Power restored to {0} homes after storm",
           "Storm damages the roofs of two schools", "Engineers warn of rising electricity prices"),
          ("3,000", "12,000", "45,000")),
    Scene(("A {0} is chasing a squirrel up a tree.", "A squirrel flees up a tree with a {0} right behind it.",
           "A young {0} is chasing a gray squirrel up a tree.", "A squirrel is chasing a {0} up a tree.",
           "A {0} is lying under a tree.", "A bird is sitting on a fence in the yard."),
          ("terrier", "tabby cat", "spaniel")),
    Scene(("You should talk to your {0} before you decide anything.",
           "Don't make up your mind until you have spoken with your {0}.",
           "You should have a long talk with your {0} before you decide anything.",
           "You should decide first and talk to your {0} afterwards.",
           "Your {0} probably knows how you feel.", "Deciding is never easy, whatever people say."),
          ("adviser", "parents", "doctor")),
    Scene(("A girl in a {0} coat is feeding ducks.", "Ducks are being fed by a girl wearing a {0} coat.",
           "A little girl in a {0} coat is feeding some ducks by a pond.",
           "A girl in a {0} coat is chasing ducks.",
           "A boy in a {0} coat is riding a scooter.", "A family is having a picnic near the lake."),
          ("yellow", "blue", "striped")),
    Scene(("Shares in the {0} rose 4 percent on Tuesday.", "On Tuesday the {0}'s stock gained 4 percent.",
           "Shares in the {0} rose nearly 5 percent on Tuesday.",
           "Shares in the {0} fell 4 percent on Tuesday.",
           "The {0} will pay its chief executive less this year.",
           "Investors expect interest rates to stay low."),
          ("airline", "steelmaker", "retailer")),
    Scene(("A chef is pouring {0} over a cake.", "A cake is having {0} poured on it by a cook.",
           "A chef is slowly pouring {0} over a round cake.", "A chef is wiping {0} off a cake.",
           "A chef is tasting {0} from a spoon.", "A waiter is carrying plates to a table."),
          ("chocolate", "cream", "syrup")),
    Scene(("Rescuers find missing {0} alive after two days",
           "Lost {0} survives two days before being rescued",
           "Rescuers find missing {0} alive after almost three days",
           "Rescuers find missing {0} dead after two days",
           "Rescuers call off search for missing {0} at nightfall",
           "Mountain rescue team appeals for new volunteers"),
          ("hiker", "fisherman", "teenager")),
    Scene(("A man with a beard is playing the {0} on a stage.",
           "On a stage, a bearded man performs on the {0}.",
           "A man with a long beard is playing the {0} on a dark stage.",
           "A man with a beard is carrying a {0} off a stage.",
           "A woman is singing on a stage beside a {0}.", "A crowd is leaving a concert hall."),
          ("trombone", "saxophone", "double bass")),
    Scene(("I would buy the cheaper {0} and save the rest of the money.",
           "Get the {0} that costs less and keep what is left over.",
           "I would probably buy the cheaper {0} and save some money.",
           "I would buy the better {0} and not worry about the money.",
           "I sold my old {0} because I needed the money.", "Saving gets harder every year."),
          ("camera", "tent", "printer")),
    Scene(("A train carrying {0} came off the rails near the border.",
           "Close to the border, a train loaded with {0} derailed.",
           "A long train carrying {0} came off the rails two miles from the border.",
           "A train carrying {0} was stopped by guards near the border.",
           "A truck carrying {0} overturned on a mountain road.", "The railway is closing its oldest line."),
          ("timber", "fuel", "cattle")),
    Scene(("A woman is teaching her {0} to ride a bicycle.",
           "A woman's {0} is learning from her how to ride a bike.",
           "A woman is teaching her small {0} to ride a bicycle in a park.",
           "A woman is being taught by her {0} to ride a bicycle.",
           "A woman is buying a bicycle for her {0}.", "Two cyclists are waiting at a traffic light."),
          ("daughter", "son", "nephew")),
    Scene(("{0} bans smoking in public parks", "Smokers may no longer light up in {0}'s public parks",
           "{0} bans smoking in parks and playgrounds", "{0} lifts ban on smoking in public parks",
           "{0} plants a thousand trees in public parks", "Tobacco firms report lower profits"),
          ("Montréal", "Geneva", "Wellington")),
    Scene(("The {0} slept all afternoon in front of the fire.",
           "All afternoon the {0} lay asleep by the fireside.",
           "The old {0} slept most of the afternoon in front of the fire.",
           "The {0} slept all night in front of the fire.",
           "The {0} ate its dinner and went out into the garden.", "Firewood was stacked against the wall."),
          ("dog", "puppy", "sheepdog")),
    Scene(("Three people are paddling a {0} down a river.",
           "A {0} with three people in it is being paddled downstream.",
           "Three people in helmets are paddling a {0} down a wide river.",
           "Three people are carrying a {0} across a river.",
           "Three people are swimming in a river.", "A man is fishing from a bridge."),
          ("canoe", "raft", "kayak")),
    Scene(("The test took {0} longer than I had expected.",
           "I had thought that the test would be {0} shorter.",
           "The final test took about {0} longer than I had expected.",
           "The test was over {0} sooner than I had expected.",
           "I had to wait {0} before the test began.", "The students complained about the new timetable."),
          ("an hour", "ten minutes", "two days")),
    Scene(("A cat is drinking {0} from a bowl.", "A bowl of {0} is being lapped up by a cat.",
           "A black cat is drinking {0} from a small bowl.", "A cat is knocking over a bowl of {0}.",
           "A cat is sleeping beside a bowl.", "A kitten is playing with a ball of wool."),
          ("milk", "water", "soup")),
    Scene(("The {0} accused its neighbor of moving troops to the frontier.",
           "According to the {0}, soldiers were sent to the frontier by the country next door.",
           "The {0} again accused its neighbor of moving some troops to the frontier.",
           "The {0} was accused by its neighbor of moving troops to the frontier.",
           "The {0} and its neighbor signed an agreement on trade.",
           "Thousands of refugees are living in tents."),
          ("republic", "kingdom", "federation")),
    Scene(("A boy is jumping off a {0} into a pool.", "From a {0}, a boy leaps into a swimming pool.",
           "A boy in red trunks is jumping off a {0} into a pool.",
           "A boy is climbing out of a pool onto a {0}.",
           "A boy is standing on a {0} and looking at the sky.",
           "Some girls are drying their hair with towels."),
          ("diving board", "low wall", "wooden platform")),
    Scene(("{0} wins the final after extra time", "Extra time brings {0} victory in the final",
           "{0} narrowly wins the final after extra time", "{0} loses the final after extra time",
           "{0} picks a new goalkeeper before the final", "Stadium to get a new roof next summer"),
          ("Brazil", "Sweden", "Ghana")),
    Scene(("If the {0} is too salty, add a little more water.",
           "Put in some extra water when the {0} has too much salt.",
           "If the {0} is much too salty, add a cup of water.",
           "If the {0} is too watery, add a little more salt.",
           "The {0} tastes better on the second day.", "A sharp knife is the best tool in any kitchen."),
          ("soup", "stew", "sauce")),
    Scene(("A {0} is reading a newspaper on a bench.", "On a bench sits a {0} with a newspaper, reading it.",
           "A {0} wearing glasses is reading a newspaper on a park bench.",
           "A {0} is asleep on a bench under a newspaper.",
           "A {0} is talking on the phone at a bus stop.", "A man is selling magazines from a stall."),
          ("soldier", "nun", "businessman")),
    Scene(("The museum paid {0} for the painting.", "It cost the museum {0} to buy the painting.",
           "The museum paid just over {0} for the small painting.", "The museum sold the painting for {0}.",
           "A thief tried to steal the painting from the museum.",
           "Tickets for the sculpture show are sold out."),
          ("$2 million", "$30 million", "£900,000")),
    Scene(("A horse is pulling a cart full of {0}.", "A cart loaded with {0} is drawn by a horse.",
           "A brown horse is pulling an old cart full of {0}.", "A horse is eating {0} from a cart.",
           "A tractor is pulling a trailer along a road.", "A farmer is mending a gate."),
          ("hay", "apples", "straw")),
    Scene(("I stopped watching that {0} after the second episode.",
           "Two episodes of that {0} were enough for me.",
           "I stopped watching that {0} after the third episode or so.",
           "I started to enjoy that {0} after the second episode.",
           "I haven't seen that {0}, but my brother talks about it.",
           "Television was better when I was young."),
          ("series", "show", "drama")),
    Scene(("The minister called the report \"{0}\".", "The minister's word for the report was \"{0}\".",
           "The minister called parts of the report \"{0}\".", "The report called the minister \"{0}\".",
           "The minister promised to publish the report.",
           "Parliament returns from its summer break on Monday."),
          ("misleading", "brilliant", "incomplete")),
    Scene(("Doctors urge parents to vaccinate children against {0}",
           "Have your kids immunized against {0}, say doctors",
           "Doctors urge parents to vaccinate young children against {0} and flu",
           "Parents urge doctors to vaccinate children against {0}",
           "Doctors treat a child with {0} in a rural clinic", "Hospital opens new children's wing"),
          ("measles", "mumps", "polio")),
    Scene(("A group of {0} is dancing in the street.", "In the street, some {0} are dancing together.",
           "A large group of {0} is dancing happily in the street.",
           "A group of {0} is marching in the street.",
           "A group of {0} is eating at a long table.", "A drummer is setting up his instruments."),
          ("students", "tourists", "sailors")),
    Scene(("A man is repairing the roof of a {0}.", "The roof of a {0} is being fixed by a man.",
           "A man is repairing the tiled roof of an old {0}.", "A man is painting the door of a {0}.",
           "A man is standing on the roof of a {0}, waving.", "A worker is unloading bricks from a van."),
          ("barn", "chapel", "garage")),
    Scene(("Police arrested {0} men after the robbery at the bank.",
           "After the bank was robbed, {0} men were arrested.",
           "Police arrested {0} young men hours after the robbery at the bank.",
           "Police released {0} men whom they had held after the robbery at the bank.",
           "Police are looking for {0} men who were seen outside the bank.",
           "Crime in the city has fallen since 2015."),
          ("two", "five", "nine")),
    Scene(("Learn {0} first, because everything else depends on it.",
           "Start with {0}: all the rest builds on that.",
           "Try to learn some {0} first, because nearly everything else depends on it.",
           "Leave {0} until last, because nothing else depends on it.",
           "I learned {0} from my grandfather.", "A good teacher is worth more than a good book."),
          ("grammar", "algebra", "drawing")),
    Scene(("A {0} is landing at a small airport in the snow.",
           "It is snowing at a small airport as a {0} touches down.",
           "A white {0} is landing at an airport in the snow.",
           "A {0} is taking off from a small airport in the snow.",
           "A {0} is parked behind a hangar.", "Passengers are waiting for their luggage."),
          ("jet", "cargo plane", "helicopter")),
    Scene(("A woman is showing a tourist the way to the {0}.",
           "A tourist is given directions to the {0} by a woman.",
           "A woman with a map is showing a tourist the way to the old {0}.",
           "A tourist is showing a woman the way to the {0}.",
           "A tourist is taking a photograph of the {0}.", "A guide is collecting money from a group."),
          ("castle", "harbor", "cathedral")),
    Scene(("{0} workers walk out over pay", "Pay dispute brings strike by {0} staff",
           "{0} workers to walk out for a day over pay", "{0} workers accept pay offer and call off walkout",
           "{0} workers get new uniforms", "Unemployment falls to lowest level in years"),
          ("Frankfurt airport", "Lisbon metro", "Oslo tram")),
]  # fmt: skip


if __name__ == "__main__":
    main()
