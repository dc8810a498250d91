from .importing import convert_published as convert_published
from .importing import import_published as import_published
from .importing import is_published as is_published
from .importing import published_facts as published_facts
