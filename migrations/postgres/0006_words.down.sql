DROP TABLE cache_word;
