package main

import (
	"fmt"
	"strings"
)

const (
	departments         = 8
	articlesADepartment = 48
)

var (
	qualities      = []string{"Small", "LARGE", "blue", "Green", "heavy", "Light", "round"}
	things         = []string{"kettle", "lamp", "chair", "basket", "blanket", "hammer", "mirror", "bottle", "ladder", "carpet", "teapot"}
	customersWords = []string{"Pot", "LIGHT", "seat", "hamper", "Cover", "mallet", "glass", "flask", "Steps", "rug", "kettle", "Torch"}
	// What the catalogue calls the things that customers have other words for.
	synonyms = map[string]string{
		"pot": "teapot", "light": "lamp", "seat": "chair", "hamper": "basket", "cover": "blanket", "mallet": "hammer",
		"glass": "mirror", "flask": "bottle", "steps": "ladder", "rug": "carpet", "torch": "lamp", "stool": "chair",
		"large": "big", "heavy": "solid", "round": "curved", "small": "little",
	}
)

// A catalogue of articles, in a database of its own.
type shop struct {
	db       *database
	best     *statement
	synonyms *statement

	scores, comparisons int64
}

type article struct {
	name  string
	cents int64
}

func openShop() (*shop, error) {
	db, err := openDatabase()
	if err != nil {
		return nil, err
	}
	shop := &shop{db: db}
	if err := shop.fill(); err != nil {
		db.close()
		return nil, err
	}
	return shop, nil
}

func (s *shop) close() {
	s.best.close()
	s.synonyms.close()
	s.db.close()
}

func (s *shop) fill() error {
	if err := s.db.register(s); err != nil {
		return err
	}
	var script strings.Builder
	script.WriteString(`
		CREATE TABLE synonym (word TEXT COLLATE shelf PRIMARY KEY, meaning TEXT) WITHOUT ROWID;
		CREATE TABLE article (id INTEGER PRIMARY KEY, department INTEGER, name TEXT COLLATE shelf, cents INTEGER);
		CREATE INDEX article_by_department ON article (department);
	`)
	for word, meaning := range synonyms {
		fmt.Fprintf(&script, "INSERT INTO synonym VALUES ('%s', '%s');\n", word, meaning)
	}
	for i := 0; i < departments*articlesADepartment; i++ {
		fmt.Fprintf(&script, "INSERT INTO article VALUES (%d, %d, '%s %s No. %d', %d);\n", i, i%departments,
			qualities[(i/3)%len(qualities)], things[(i/5)%len(things)], i%13, 199+(i*7919)%9800)
	}
	if err := s.db.exec(script.String()); err != nil {
		return err
	}
	var err error
	s.best, err = s.db.prepare(`
		SELECT name, cents FROM article WHERE department = ?1
		ORDER BY score(name, ?2) DESC, name COLLATE shelf, id LIMIT 1`)
	if err != nil {
		return err
	}
	s.synonyms, err = s.db.prepare("SELECT meaning FROM synonym WHERE word = ?1")
	return err
}

// The article of a department that fits a wish best.
func (s *shop) bestMatch(department int, wish string) (article, error) {
	defer s.best.reset()
	s.best.bindInt(1, int64(department))
	s.best.bindText(2, wish)
	found, err := s.best.step()
	if err != nil {
		return article{}, err
	}
	if !found {
		return article{}, fmt.Errorf("department %d is empty", department)
	}
	return article{name: s.best.text(0), cents: s.best.int(1)}, nil
}

// What the catalogue calls a thing.
func (s *shop) meaningOf(word string) (string, error) {
	defer s.synonyms.reset()
	s.synonyms.bindText(1, word)
	found, err := s.synonyms.step()
	if err != nil || !found {
		return word, err
	}
	return s.synonyms.text(0), nil
}
